//! What a long operation tells while it runs.

/// Told to the caller, who decides how it looks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// A step begins; `fraction` of the whole, between 0 and 1, is behind us.
    Step { name: &'static str, fraction: f32 },
    /// A line that a tool we run has printed, without control characters.
    Line(String),
}

/// Where progress goes.
pub type Report<'a> = &'a mut dyn FnMut(Progress);

pub(crate) fn step(report: Report<'_>, name: &'static str, fraction: f32) {
    report(Progress::Step { name, fraction });
}
