//! The pool: which address stands for which name.
//!
//! An address stands for one name and never, while anybody could remember it, for another: when there are too many
//! names the one not used for longest goes, but its address is given out again only after all others were.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_policy::{
    HostName,
    addresses::{POOL_V4, POOL_V6},
};

use crate::limits::MAX_NAMES;

/// 198.18.1.0 to 198.19.255.255.
const POOL: u32 = (1 << 17) - (1 << 8);

/// The place of a name in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place(u32);

impl Place {
    /// Of an address of the pool, whether it stands for a name or not.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        let index = match address {
            IpAddr::V4(address) => address.to_bits().checked_sub(POOL_V4.to_bits())?,
            IpAddr::V6(address) => address
                .to_bits()
                .checked_sub(POOL_V6.to_bits())?
                .try_into()
                .ok()?,
        };
        (index < POOL).then_some(Place(index))
    }

    pub(crate) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(POOL_V4.to_bits().saturating_add(self.0))
    }

    pub(crate) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(POOL_V6.to_bits().saturating_add(u128::from(self.0)))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    places: HashMap<HostName, Place>,
    names: HashMap<Place, Entry>,
    next: u32,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    name: HostName,
    used: u64,
    flows: usize,
}

impl Names {
    /// The place of a name, a new one if it has none. `None` when every name has a flow, which the limits rule out.
    pub(crate) fn place(&mut self, name: &HostName) -> Option<Place> {
        self.clock += 1;
        if let Some(place) = self.places.get(name) {
            if let Some(entry) = self.names.get_mut(place) {
                entry.used = self.clock;
            }
            return Some(*place);
        }
        if self.names.len() >= MAX_NAMES {
            self.forget_one()?;
        }
        let place = self.free_place();
        self.places.insert(name.clone(), place);
        let entry = Entry {
            name: name.clone(),
            used: self.clock,
            flows: 0,
        };
        self.names.insert(place, entry);
        Some(place)
    }

    pub(crate) fn name(&self, place: Place) -> Option<&HostName> {
        self.names.get(&place).map(|entry| &entry.name)
    }

    /// A flow to this name begins: it stays until as many have ended.
    pub(crate) fn hold(&mut self, place: Place) {
        self.clock += 1;
        if let Some(entry) = self.names.get_mut(&place) {
            entry.used = self.clock;
            entry.flows += 1;
        }
    }

    pub(crate) fn release(&mut self, place: Place) {
        if let Some(entry) = self.names.get_mut(&place) {
            entry.flows = entry.flows.saturating_sub(1);
        }
    }

    fn forget_one(&mut self) -> Option<()> {
        let idle = self.names.iter().filter(|(_, entry)| entry.flows == 0);
        let (place, _) = idle.min_by_key(|(_, entry)| entry.used)?;
        let entry = self.names.remove(&{ *place })?;
        self.places.remove(&entry.name);
        Some(())
    }

    /// Goes on where it last stopped, round the whole pool. There are far more places than names.
    fn free_place(&mut self) -> Place {
        loop {
            let place = Place(self.next);
            self.next = (self.next + 1) % POOL;
            if !self.names.contains_key(&place) {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> HostName {
        HostName::try_from(format!("n{number}.example.com")).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address_and_both_families_stand_for_it() {
        let mut names = Names::default();
        let first = names.place(&name(1)).unwrap();
        let second = names.place(&name(2)).unwrap();
        assert_eq!(names.place(&name(1)), Some(first));
        assert_ne!(first, second);
        assert_eq!(Place::of(second.v4().into()), Some(second));
        assert_eq!(Place::of(second.v6().into()), Some(second));
        assert_eq!(names.name(second), Some(&name(2)));
    }

    #[test]
    fn the_pool_ends_where_it_ends() {
        let last: IpAddr = Ipv4Addr::new(198, 19, 255, 255).into();
        assert_eq!(Place::of(last), Some(Place(POOL - 1)));
        for outside in [
            "198.20.0.0",
            "198.18.0.255",
            "0.0.0.0",
            "::",
            "fdc0:ffe4:0:1::2:0",
            "fdc0:ffe4::2",
        ] {
            assert_eq!(Place::of(outside.parse().unwrap()), None, "{outside}");
        }
        assert_eq!(
            Place::of("fdc0:ffe4:0:1::1:feff".parse().unwrap()),
            Some(Place(POOL - 1))
        );
        assert_eq!(Place::of("fdc0:ffe4:0:1::1:ff00".parse().unwrap()), None);
    }

    #[test]
    fn the_name_not_used_for_longest_goes_and_its_address_is_not_reused_soon() {
        let mut names = Names::default();
        let first = names.place(&name(0)).unwrap();
        let mut given: Vec<Place> = (1..u32::try_from(MAX_NAMES).unwrap())
            .map(|number| names.place(&name(number)).unwrap())
            .collect();
        names.place(&name(0)).unwrap();
        names.place(&name(1_000_000)).unwrap();
        assert_eq!(names.name(first), Some(&name(0)), "used just now");
        assert_eq!(names.name(given.remove(0)), None, "used first and never since");
        let before: u32 = names.next;
        for number in 0..POOL - before {
            names.place(&name(2_000_000 + number)).unwrap();
        }
        assert_eq!(names.next, 0, "not before the end of the pool");
        assert_eq!(names.names.len(), MAX_NAMES);
        assert_eq!(names.places.len(), MAX_NAMES);
    }

    #[test]
    fn a_name_with_a_flow_stays() {
        let mut names = Names::default();
        let held = names.place(&name(0)).unwrap();
        names.hold(held);
        names.hold(held);
        names.release(held);
        for number in 1..=2 * u32::try_from(MAX_NAMES).unwrap() {
            names.place(&name(number)).unwrap();
        }
        assert_eq!(names.name(held), Some(&name(0)));
        names.release(held);
        for number in 1..=2 * u32::try_from(MAX_NAMES).unwrap() {
            names.place(&name(3_000_000 + number)).unwrap();
        }
        assert_eq!(names.name(held), None);
    }
}
