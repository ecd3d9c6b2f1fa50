//! Places in the engine.

use std::sync::Arc;

use loom::thread;

use super::ticket::Ticket;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Three callers, two places.
pub fn there_are_never_more_inside_than_places() {
    let taken = Arc::new(AtomicUsize::new(0));
    let inside = Arc::new(AtomicUsize::new(0));
    let call = move |taken: &Arc<AtomicUsize>, inside: &AtomicUsize| {
        let Some(ticket) = Ticket::take(taken, 2) else { return false };
        assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(ticket);
        true
    };
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (taken, inside) = (Arc::clone(&taken), Arc::clone(&inside));
            thread::spawn(move || call(&taken, &inside))
        })
        .collect();
    let mine = call(&taken, &inside);
    let served = callers.into_iter().map(|caller| caller.join().unwrap()).filter(|&served| served).count();
    assert!(served + usize::from(mine) >= 2, "two places, and only {served} and {mine} had one");
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    assert!(Ticket::take(&taken, 1).is_some());
}
