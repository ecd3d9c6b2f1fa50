//! In the place of the standard library's channel, of which loom's has no ends that hang up.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::{Condvar, Mutex};

struct Shared<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    letters: VecDeque<T>,
    posting: bool,
    receiving: bool,
}

/// The sender's end.
pub(super) struct Post<T>(Arc<Shared<T>>);

/// The receiver's end.
pub(super) struct Inbox<T>(Arc<Shared<T>>);

/// Both ends.
pub(super) fn inbox<T>() -> (Post<T>, Inbox<T>) {
    let state = Mutex::new(State { letters: VecDeque::new(), posting: true, receiving: true });
    let shared = Arc::new(Shared { state, ready: Condvar::new() });
    (Post(Arc::clone(&shared)), Inbox(shared))
}

impl<T> Post<T> {
    /// Sends, unless the receiver is gone.
    pub(super) fn send(&self, letter: T) -> Result<(), T> {
        let mut state = self.0.state.lock().unwrap();
        if !state.receiving {
            return Err(letter);
        }
        state.letters.push_back(letter);
        self.0.ready.notify_one();
        Ok(())
    }
}

impl<T> Drop for Post<T> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().posting = false;
        self.0.ready.notify_one();
    }
}

impl<T> Inbox<T> {
    /// Waits for the next one; None when the sender is gone and nothing is left.
    pub(super) fn wait(&self) -> Option<T> {
        let mut state = self.0.state.lock().unwrap();
        loop {
            if let Some(letter) = state.letters.pop_front() {
                return Some(letter);
            }
            if !state.posting {
                return None;
            }
            state = self.0.ready.wait(state).unwrap();
        }
    }

    /// What has arrived.
    pub(super) fn rest(&self) -> VecDeque<T> {
        std::mem::take(&mut self.0.state.lock().unwrap().letters)
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.state.lock().unwrap();
            state.receiving = false;
            std::mem::take(&mut state.letters)
        };
        drop(left);
    }
}
