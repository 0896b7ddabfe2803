//! One suite for every method: the built-in ones and three that the crate does not know. A new
//! method needs no new code.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use suite::checks::Case;
use suite::outside;

#[test]
fn every_method_keeps_the_contract() {
    let registry = outside::registry();
    std::thread::scope(|scope| {
        for id in registry.iter().map(|method| method.id()) {
            for options in suite::variants(&registry, id) {
                // The thread's name is what a failure shows.
                let (name, case) = (format!("{id} {options}"), Case { registry: &registry, id, options });
                std::thread::Builder::new().name(name).spawn_scoped(scope, move || case.all()).unwrap();
            }
        }
    });
}
