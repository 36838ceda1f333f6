use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// Runs each case on `with`, the rest too when one fails, and fails with the names of those that did.
pub fn run_cases<T>(with: &T, cases: &[(&str, fn(&T))]) {
    let only = std::env::var("COFFER_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
        let start = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| case(with))).is_ok();
        let word = if passed { "ok    " } else { "FAILED" };
        println!("{word} {:6.2} s  {name}", start.elapsed().as_secs_f32());
        if !passed {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "cases that failed: {}", failed.join(", "));
}

/// `cases!(on; one, two)`: functions that take `&on`, one after the other. `COFFER_CASE=WORD` picks some.
#[macro_export]
macro_rules! cases {
    ($with:expr; $($case:ident),+ $(,)?) => {
        $crate::run_cases(&$with, &[$((stringify!($case), $case)),+])
    };
}
