use std::path::Path;

use super::*;

fn golden(kind: BlockKind, part: &str) -> Vec<u8> {
    let name = format!("tests/goldens/gguf/{}.{part}", kind.name().to_lowercase());
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Against the Python package `gguf` (tests/goldens/make_gguf.py), bit for bit.
#[test]
fn every_kind_is_unpacked_as_the_reference_does() {
    for kind in BlockKind::all() {
        let packed = golden(kind, "bin");
        let expected: Vec<u32> =
            golden(kind, "f32").chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let mut out = vec![f32::NAN; expected.len()];
        dequantise(kind, &packed, &mut out).unwrap();
        for (number, (found, expected)) in out.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), *expected, "{kind} number {number}: {found} and {}", f32::from_bits(*expected));
        }
        assert!(out.len() >= 64 && out.iter().any(|number| *number < 0.0));
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let mut out = [0.0; 64];
    for (kind, bytes, numbers) in [
        (BlockKind::Q8_0, 33, 32),
        (BlockKind::Q8_0, 34, 64),
        (BlockKind::Q4K, 144, 64),
        (BlockKind::F32, 5, 1),
        (BlockKind::Q4_0, 20, 33),
    ] {
        let error = dequantise(kind, &vec![0; bytes], &mut out[..numbers]).unwrap_err();
        assert_eq!(error, BlockError { kind, bytes, numbers });
    }
    assert_eq!(dequantise(BlockKind::Q6K, &[], &mut []), Ok(()));
    assert!(
        dequantise(BlockKind::Q4_1, &[0; 19], &mut out[..32]).unwrap_err().to_string().contains("19 bytes of Q4_1")
    );
}

/// Not a test of right or wrong: run with `--ignored --nocapture` to see speeds.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn speed() {
    let mut out = vec![0f32; 1 << 22];
    for kind in BlockKind::all() {
        let bytes = vec![0x35u8; bytes_of(kind, out.len()).unwrap()];
        let start = std::time::Instant::now();
        for _ in 0..4 {
            dequantise(kind, &bytes, std::hint::black_box(&mut out)).unwrap();
        }
        let seconds = start.elapsed().as_secs_f64() / 4.0;
        println!("{kind}: {:.0} MB/s of f32", out.len() as f64 * 4.0 / seconds / 1e6);
    }
}
