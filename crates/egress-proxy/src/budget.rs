//! What the session may still use up.

use std::cell::Cell;

use egress_policy::{EgressPolicy, Reason, control::Spent};

#[derive(Debug)]
pub(crate) struct Budget {
    spent: Cell<Spent>,
    max_bytes: Cell<Option<u64>>,
    max_connections: Cell<Option<u64>>,
}

impl Budget {
    pub(crate) fn new(policy: &EgressPolicy, spent: Spent) -> Self {
        let budget = Budget {
            spent: Cell::new(spent),
            max_bytes: Cell::new(None),
            max_connections: Cell::new(None),
        };
        budget.limit(policy);
        budget
    }

    pub(crate) fn limit(&self, policy: &EgressPolicy) {
        self.max_bytes.set(policy.max_bytes);
        self.max_connections.set(policy.max_connections);
    }

    /// One more connection, to be given back if it does not come to stand.
    pub(crate) fn take_connection(&self) -> Result<(), Reason> {
        let mut spent = self.spent.get();
        if self.bytes_left() == 0 {
            return Err(Reason::BudgetBytes);
        }
        if self
            .max_connections
            .get()
            .is_some_and(|max| spent.connections >= max)
        {
            return Err(Reason::BudgetConnections);
        }
        spent.connections = spent.connections.saturating_add(1);
        self.spent.set(spent);
        Ok(())
    }

    pub(crate) fn return_connection(&self) {
        let mut spent = self.spent.get();
        spent.connections = spent.connections.saturating_sub(1);
        self.spent.set(spent);
    }

    pub(crate) fn bytes_left(&self) -> u64 {
        let max = self.max_bytes.get().unwrap_or(u64::MAX);
        max.saturating_sub(self.spent.get().bytes)
    }

    pub(crate) fn take_bytes(&self, count: usize) {
        let mut spent = self.spent.get();
        spent.bytes = spent.bytes.saturating_add(count as u64);
        self.spent.set(spent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: Option<u64>, connections: Option<u64>, spent: Spent) -> Budget {
        let policy = EgressPolicy {
            max_bytes: bytes,
            max_connections: connections,
            ..EgressPolicy::default()
        };
        Budget::new(&policy, spent)
    }

    #[test]
    fn what_a_process_before_has_spent_counts() {
        let spent = Spent {
            bytes: 90,
            connections: 2,
        };
        let budget = budget(Some(100), Some(3), spent);
        assert_eq!(budget.bytes_left(), 10);
        assert_eq!(budget.take_connection(), Ok(()));
        assert_eq!(budget.take_connection(), Err(Reason::BudgetConnections));
        budget.return_connection();
        budget.take_bytes(10);
        assert_eq!(budget.take_connection(), Err(Reason::BudgetBytes));
    }

    #[test]
    fn a_smaller_budget_than_is_spent_leaves_nothing() {
        let budget = budget(None, None, Spent::default());
        budget.take_bytes(1000);
        assert_eq!(budget.bytes_left(), u64::MAX - 1000);
        budget.limit(&EgressPolicy {
            max_bytes: Some(10),
            ..EgressPolicy::default()
        });
        assert_eq!(budget.bytes_left(), 0);
    }
}
