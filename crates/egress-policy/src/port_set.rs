//! A set of ports, for finding out whether anything is left of them.

use crate::Ports;

/// Every port that can be connected to: not 0.
const FIRST: u16 = 1;

/// Ranges in no order; none touches another.
#[derive(Debug, Default)]
pub(crate) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    pub(crate) fn add(&mut self, ports: Ports) {
        let Some((mut first, mut last)) = bounds(ports) else {
            return;
        };
        self.0.retain(|&(a, b)| {
            let apart = b.saturating_add(1) < first || last.saturating_add(1) < a;
            if !apart {
                (first, last) = (first.min(a), last.max(b));
            }
            apart
        });
        self.0.push((first, last));
    }

    /// Of no ports it has all.
    pub(crate) fn has_all(&self, ports: Ports) -> bool {
        let Some((first, last)) = bounds(ports) else {
            return true;
        };
        self.0.iter().any(|&(a, b)| a <= first && last <= b)
    }
}

fn bounds(ports: Ports) -> Option<(u16, u16)> {
    let (first, last) = match ports {
        Ports::All => (FIRST, u16::MAX),
        Ports::Range { first, last } => (first.max(FIRST), last),
    };
    (first <= last).then_some((first, last))
}
