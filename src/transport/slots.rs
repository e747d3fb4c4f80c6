//! Who holds a connection, and who gives way when there are no more.
//!
//! A connection on which no request runs is idle. When all slots are taken, the connection that has
//! been idle for longest ends in favour of a new one, so idle callers keep nobody out. One client
//! address holds a share of the slots and of the bytes in progress at most.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Purse};
use crate::telemetry::{label, metric};

/// The share of one client address: one in so many.
const SHARE: usize = 4;

/// The slots of one port.
pub(super) struct Slots(Arc<Shared>);

struct Shared {
    max: usize,
    /// The bytes of one address, if addresses have a share: behind a proxy all callers have its
    /// address.
    share: Option<usize>,
    bytes: Budget,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Default)]
struct Table {
    /// Numbers connections, and orders them by when they became idle.
    next: u64,
    connections: HashMap<u64, Connection>,
    idle: BTreeMap<u64, u64>,
    addresses: HashMap<IpAddr, Address>,
}

struct Connection {
    address: IpAddr,
    idle_since: Option<u64>,
    running: watch::Sender<usize>,
    gives_way: CancellationToken,
}

struct Address {
    connections: usize,
    bytes: Budget,
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// The address holds its share, and a request runs on each of its connections.
    AddressFull,
    /// There will be one when a connection has ended; an idle one was told to end, if there was any.
    Wait,
}

impl Slots {
    /// `max` slots and `bytes` of requests in progress.
    pub(super) fn new(max: usize, bytes: usize, share_by_address: bool) -> Self {
        let share = share_by_address.then_some(bytes / SHARE);
        let bytes = Budget::new(bytes);
        Self(Arc::new(Shared { max, share, bytes, table: Mutex::default(), freed: Notify::new() }))
    }

    /// A slot for a connection of `peer`.
    ///
    /// # Errors
    /// [`NoSlot`]: there is none now.
    pub(super) fn take(&self, peer: IpAddr) -> Result<Slot, NoSlot> {
        let address = network(peer);
        let mut table = self.0.table();
        let of_address = table.addresses.get(&address).map_or(0, |held| held.connections);
        if self.0.share.is_some() && of_address >= (self.0.max / SHARE).max(1) {
            return Err(if table.give_way(Some(address)) {
                NoSlot::Wait
            } else {
                NoSlot::AddressFull
            });
        }
        if table.connections.len() >= self.0.max {
            table.give_way(None);
            return Err(NoSlot::Wait);
        }
        Ok(self.enter(&mut table, address))
    }

    fn enter(&self, table: &mut Table, address: IpAddr) -> Slot {
        let id = table.number();
        let (running, gives_way) = (watch::Sender::new(0), CancellationToken::new());
        let bytes = Budget::new(self.0.share.unwrap_or(0));
        let held = table.addresses.entry(address).or_insert(Address { connections: 0, bytes });
        held.connections += 1;
        let mut purse = vec![self.0.bytes.clone()];
        if self.0.share.is_some() {
            purse.push(held.bytes.clone());
        }
        let slot = Slot {
            shared: Arc::clone(&self.0),
            id,
            running: running.subscribe(),
            gives_way: gives_way.clone(),
            purse: Purse(purse),
        };
        table
            .connections
            .insert(id, Connection { address, idle_since: Some(id), running, gives_way });
        table.idle.insert(id, id);
        slot
    }

    /// Asks the connection that has been idle for longest to end.
    pub(super) fn make_room(&self) {
        self.0.table().give_way(None);
    }

    /// Ends when a slot may have become free, or a connection idle.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Asks the connection (of that address) that has been idle for longest to end; false if none
    /// is idle and none is ending already.
    fn give_way(&mut self, address: Option<IpAddr>) -> bool {
        let matches =
            |connection: &Connection| address.is_none_or(|address| connection.address == address);
        let connections = &self.connections;
        let of_address = |id: &u64| connections.get(id).is_some_and(matches);
        let Some((since, id)) =
            self.idle.iter().map(|(since, id)| (*since, *id)).find(|(_, id)| of_address(id))
        else {
            return self
                .connections
                .values()
                .any(|connection| matches(connection) && connection.gives_way.is_cancelled());
        };
        self.idle.remove(&since);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.idle_since = None;
            connection.gives_way.cancel();
            metrics::counter!(metric::CONNECTIONS_ENDED, label::CAUSE => "gave_way").increment(1);
        }
        true
    }
}

/// One connection's slot. It is free again when this is dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
    id: u64,
    running: watch::Receiver<usize>,
    gives_way: CancellationToken,
    purse: Purse,
}

impl Slot {
    /// The budgets of this connection.
    pub(super) fn purse(&self) -> Purse {
        self.purse.clone()
    }

    /// Ends when this connection should end in favour of another one.
    pub(super) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }

    /// Ends when no request runs.
    pub(super) async fn idle(&self) {
        let mut running = self.running.clone();
        // The sender is in the table for as long as this slot is.
        drop(running.wait_for(|running| *running == 0).await);
    }

    /// Whether no request runs.
    pub(super) fn is_idle(&self) -> bool {
        *self.running.borrow() == 0
    }

    /// Counts a request from its headers until its reply has been read.
    pub(super) fn runs(&self) -> Running {
        let mut table = self.shared.table();
        let mut since = None;
        if let Some(connection) = table.connections.get_mut(&self.id) {
            connection.running.send_modify(|running| *running += 1);
            since = connection.idle_since.take();
        }
        if let Some(since) = since {
            table.idle.remove(&since);
        }
        Running { shared: Arc::clone(&self.shared), id: self.id }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        if let Some(connection) = table.connections.remove(&self.id) {
            if let Some(since) = connection.idle_since {
                table.idle.remove(&since);
            }
            if let Some(held) = table.addresses.get_mut(&connection.address) {
                held.connections = held.connections.saturating_sub(1);
                if held.connections == 0 {
                    table.addresses.remove(&connection.address);
                }
            }
        }
        drop(table);
        self.shared.freed.notify_one();
    }
}

/// A request that runs.
pub(super) struct Running {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        let since = table.number();
        let Some(connection) = table.connections.get_mut(&self.id) else { return };
        connection.running.send_modify(|running| *running = running.saturating_sub(1));
        if *connection.running.borrow() == 0 && !connection.gives_way.is_cancelled() {
            connection.idle_since = Some(since);
            table.idle.insert(since, self.id);
            drop(table);
            self.shared.freed.notify_one();
        }
    }
}

/// What counts as one client: an IPv4 address, or a network of IPv6, since one client has all of
/// it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn slots(max: usize) -> Slots {
        Slots::new(max, 1 << 20, true)
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_gives_way() {
        let slots = slots(4);
        let held: Vec<Slot> =
            (1..=4).map(|n| slots.take(address(&format!("192.0.2.{n}"))).unwrap()).collect();
        let running = held[0].runs();
        drop(held[1].runs());
        let newcomer = address("198.51.100.1");
        assert_eq!(slots.take(newcomer).err(), Some(NoSlot::Wait));
        let ending = || held.iter().map(|slot| slot.gives_way.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(ending(), [false, false, true, false]);
        drop(running);
        let [first, second, third, fourth] = held.try_into().ok().unwrap();
        drop(third);
        let newcomer = slots.take(newcomer).unwrap();
        assert!(
            ![&first, &second, &fourth, &newcomer].iter().any(|slot| slot.gives_way.is_cancelled())
        );
    }

    #[test]
    fn one_address_holds_a_quarter_and_only_its_own_idle_connections_give_way_to_it() {
        let slots = slots(8);
        let (one, other) = (address("2001:db8::1"), address("2001:db8::ffff"));
        let another = slots.take(address("2001:db8:0:1::1")).unwrap();
        let first = slots.take(one).unwrap();
        let second = slots.take(other).unwrap();
        let running = (first.runs(), second.runs());
        assert_eq!(slots.take(one).err(), Some(NoSlot::AddressFull));
        drop(running.1);
        assert_eq!(slots.take(one).err(), Some(NoSlot::Wait));
        assert!(second.gives_way.is_cancelled() && !another.gives_way.is_cancelled());
        drop(second);
        assert!(slots.take(one).is_ok());
    }

    #[test]
    fn behind_a_proxy_one_address_may_hold_all() {
        let slots = Slots::new(4, 100, false);
        let held: Vec<_> = (0..4).map(|_| slots.take(address("192.0.2.1")).unwrap()).collect();
        assert!(held[0].purse().take(100).is_some());
    }

    #[test]
    fn one_address_has_a_quarter_of_the_bytes_over_all_its_connections() {
        let slots = Slots::new(8, 100, true);
        let one =
            [slots.take(address("192.0.2.1")).unwrap(), slots.take(address("192.0.2.1")).unwrap()];
        let other = slots.take(address("192.0.2.2")).unwrap();
        let taken = one[0].purse().take(20).unwrap();
        assert!(one[1].purse().take(6).is_none());
        assert!(other.purse().take(25).is_some());
        drop(taken);
        assert!(one[1].purse().take(25).is_some());
    }

    #[test]
    fn nothing_is_left_of_connections_that_have_ended() {
        let slots = slots(4);
        for n in 1..=100 {
            let slot = slots.take(address(&format!("192.0.2.{n}"))).unwrap();
            let running = slot.runs();
            drop(slot);
            drop(running);
        }
        let table = slots.0.table();
        assert!(
            table.connections.is_empty() && table.idle.is_empty() && table.addresses.is_empty()
        );
    }
}
