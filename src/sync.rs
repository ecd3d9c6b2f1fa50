//! Where threads meet: locks, conditions, atomics and the clock. Code whose order of steps matters takes them from here;
//! `tests/schedules` puts others in their place, under which every order is tried.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
pub(crate) use std::time::Instant;
pub(crate) use std::{hint, thread, thread_local};

/// Looks of a thread that watches for something between two glances at the clock.
pub(crate) const LOOKS_PER_GLANCE: u32 = 64;
