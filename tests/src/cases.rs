use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// A function that is tried on something made before.
#[derive(Debug)]
pub struct Case<T> {
    pub name: &'static str,
    pub run: fn(&T),
}

/// Runs each case on `with`, the rest too when one fails, and fails with the names of those that did.
pub fn run_cases<T>(with: &T, cases: &[Case<T>]) {
    let only = std::env::var("COFFER_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only)) {
        let start = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(|| (case.run)(with))).is_ok();
        let word = if passed { "ok    " } else { "FAILED" };
        println!("{word} {:6.2} s  {}", start.elapsed().as_secs_f32(), case.name);
        if !passed {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "cases that failed: {}", failed.join(", "));
}

/// `cases!(on; one, two)`: functions that take `&on`, one after the other. `COFFER_CASE=WORD` picks some.
#[macro_export]
macro_rules! cases {
    ($with:expr; $($case:ident),+ $(,)?) => {
        $crate::run_cases(&$with, &[$($crate::Case { name: stringify!($case), run: $case }),+])
    };
}
