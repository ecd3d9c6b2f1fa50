//! The ways into the engine and out of it.

#[path = "../../../../src/engine/event.rs"]
mod event;
mod inbox;
#[path = "../../../../src/engine/ticket.rs"]
mod ticket;

pub mod door_models;
pub mod event_models;
pub mod ticket_models;

use crate::error::{Error, ErrorKind};

/// What an event carries and nobody here looks at.
mod stats {
    /// As in the crate.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Usage {}

    /// As in the crate.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Dropped {}

    /// As in the crate.
    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    pub struct Metrics {}
}

/// As in the crate.
fn closed() -> Error {
    Error::new(ErrorKind::Closed, "The generator is closed.", "Make a new Generator.")
}
