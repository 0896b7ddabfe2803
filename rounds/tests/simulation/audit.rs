//! What must hold after every step, beside the engine's own invariants.

use rondo_proto::RunId;

use crate::world::World;

impl World {
    /// What must hold once a step is committed.
    pub(crate) fn audit(&self) {
        self.engine.check().unwrap();
        self.audit_records();
        for run in &self.runs {
            self.audit_sums(run);
        }
    }

    /// The state can be rebuilt from what was committed, to the byte (numbers to the last place but one).
    fn audit_records(&self) {
        let records = self.engine.records().records;
        assert!(records.keys().eq(self.store.keys()), "other records exist than were committed");
        for (key, bytes) in &records {
            let stored = &self.store[key];
            if bytes == stored {
                continue;
            }
            let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
            assert!(alike(&parse(bytes), &parse(stored)), "{key} changed without being committed");
        }
    }

    /// R2 and R3 with other eyes: the sum that was aggregated holds every recorded client once, and whoever was told
    /// that its update counts is among them.
    fn audit_sums(&self, run: &RunId) {
        for record in self.engine.rounds(run) {
            if record.global_digest.is_empty() {
                continue;
            }
            let sum = self.blobs.get(&record.global_digest.parse().unwrap()).copied().unwrap_or_default();
            let accepted = record.participants.iter().filter(|participant| participant.state == "accepted");
            let recorded: u64 = accepted.map(|participant| worth(&participant.client)).sum();
            assert_eq!(sum, recorded, "round {} of {run} aggregated other updates than it records", record.round);
            for (work, client, digest) in &self.promised {
                if (&work.run, work.round, work.attempt) != (run, record.round, record.attempt) {
                    continue;
                }
                let part = record.participants.iter().find(|participant| participant.client == client.as_str());
                let is_kept =
                    part.is_some_and(|part| part.state == "accepted" && part.update_digest == digest.to_string());
                let was_revoked = part.is_some_and(|part| part.reason == "revoked");
                assert!(is_kept || was_revoked, "{client} was told that {digest} counts in round {}", record.round);
            }
        }
    }

    pub(crate) fn audit_blobs(&self) {
        self.engine.check_blobs(&|digest| self.blobs.contains_key(digest)).unwrap();
        let needed = self.engine.blobs();
        let left = self.blobs.keys().find(|digest| !needed.contains(digest));
        assert_eq!(left, None, "nobody needs this blob, and nobody dropped it");
    }
}

fn worth(client: &str) -> u64 {
    1 << client[1..].parse::<u32>().unwrap()
}

fn alike(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-12 * a.abs()
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && alike(a, b))
        }
        (a, b) => a == b,
    }
}
