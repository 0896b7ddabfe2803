use super::*;
use crate::clock::SystemClock;
use crate::init::{InitRequest, init};

struct Later(Millis);

impl Clock for Later {
    fn now(&self) -> Millis {
        SystemClock.now() + self.0
    }
}

#[test]
fn an_expired_operator_is_let_in_again_and_one_that_can_call_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::new(dir.path().join("data"));
    init(&data, &InitRequest { port: 7461, ..Default::default() }, &SystemClock).unwrap();
    let before = identity::load(&data.operator()).unwrap();
    let refused = reissue(&data, "operator", &data.operator(), 90, &SystemClock).unwrap_err();
    assert!(refused.to_string().contains("rondo operator revoke operator"), "{refused}");
    assert_eq!(identity::load(&data.operator()).unwrap().cert_pem, before.cert_pem);

    let later = Later(100 * 86_400_000);
    let made = reissue(&data, "operator", &data.operator(), 90, &later).unwrap();
    assert_eq!((made.url.as_str(), made.role.as_str()), ("https://localhost:7461", "operator"));
    assert_ne!(identity::load(&data.operator()).unwrap().cert_pem, before.cert_pem);
    let refused = reissue(&data, "second", &data.operator(), 90, &later).unwrap_err();
    assert!(matches!(refused, SetupError::Taken { .. }), "{refused}");
    let second = dir.path().join("second");
    reissue(&data, "second", &second, 90, &later).unwrap();
    assert_eq!(identity::load(&second).unwrap().name, "second");
    let store = DurableStore::open(&data.store()).unwrap();
    assert_eq!(Member::all(&store, Role::Operator).unwrap().len(), 2);
}

#[test]
fn not_while_a_coordinator_serves() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::new(dir.path().join("data"));
    let missing = reissue(&data, "operator", &data.operator(), 90, &SystemClock).unwrap_err();
    assert!(missing.to_string().contains("init"), "{missing}");
    init(&data, &InitRequest { port: 7461, ..Default::default() }, &SystemClock).unwrap();
    let _lock = data.lock().unwrap();
    let refused = reissue(&data, "second", &dir.path().join("second"), 90, &SystemClock).unwrap_err();
    assert!(matches!(refused, SetupError::Serving { .. }), "{refused}");
    assert!(!dir.path().join("second").exists());
}
