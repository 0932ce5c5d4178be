//! The live bulkhead: places, and a queue in order of arrival.

use std::collections::VecDeque;

/// A place in the queue, or the place that it turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a call gets at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A place.
    Admitted(Ticket),
    /// A place in the queue.
    Queued(Ticket),
    /// Nothing: all places are taken, those to wait in too.
    Full,
}

/// A live bulkhead. Fair: a free place goes to whoever has waited longest, and nobody overtakes the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bulkhead {
    running: u32,
    queue: VecDeque<Ticket>,
    last: u64,
}

impl Bulkhead {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls that run.
    #[must_use]
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Calls that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Asks for a place. The settings come with each question, so that a changed policy is honoured by the next decision.
    pub fn enter(&mut self, max_concurrent: u32, max_waiting: u32) -> Entered {
        self.last += 1;
        let ticket = Ticket(self.last);
        if self.running < max_concurrent && self.queue.is_empty() {
            self.running += 1;
            Entered::Admitted(ticket)
        } else if self.queue.len() < max_waiting as usize {
            self.queue.push_back(ticket);
            Entered::Queued(ticket)
        } else {
            Entered::Full
        }
    }

    /// Gives back what a ticket holds, a place or a place in the queue. Every ticket comes back exactly once. Says who may
    /// run now.
    pub fn leave(&mut self, ticket: Ticket, max_concurrent: u32) -> Option<Ticket> {
        if let Some(index) = self.queue.iter().position(|own| *own == ticket) {
            self.queue.remove(index);
            return None;
        }
        self.running = self.running.saturating_sub(1);
        self.next(max_concurrent)
    }

    /// Whether a ticket still waits.
    #[must_use]
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.queue.contains(&ticket)
    }

    /// Takes changed settings: who may run at once because the bound has grown. A bound that has shrunk lets those run that do.
    pub fn resize(&mut self, max_concurrent: u32) -> Vec<Ticket> {
        std::iter::from_fn(|| self.next(max_concurrent)).collect()
    }

    fn next(&mut self, max_concurrent: u32) -> Option<Ticket> {
        if self.running >= max_concurrent {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.running += 1;
        Some(next)
    }
}
