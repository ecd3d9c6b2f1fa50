//! Ctrl-C: stops an answer, or ends the command.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::failure::INTERRUPTED;

/// How often Ctrl-C was pressed since the last line was entered, and who deals with it.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    presses: AtomicUsize,
    /// An answer is being written; whoever writes it looks at `presses`.
    answering: AtomicBool,
    /// A conversation is open: one press is forgiven.
    chatting: AtomicBool,
}

impl Interrupts {
    /// The counter behind the process's Ctrl-C handler, which the first call installs.
    pub(super) fn of_process() -> Arc<Self> {
        static SHARED: OnceLock<Arc<Interrupts>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let interrupts = Arc::new(Self::default());
            let handled = Arc::clone(&interrupts);
            if let Err(error) = ctrlc::set_handler(move || handled.press()) {
                log::warn!("Ctrl-C cannot be handled: {error}");
            }
            interrupts
        });
        shared.forget();
        Arc::clone(shared)
    }

    /// What the handler does, on a thread of its own.
    pub(super) fn press(&self) {
        let before = self.presses.fetch_add(1, Ordering::SeqCst);
        if self.answering.load(Ordering::SeqCst) {
            return;
        }
        if self.chatting.load(Ordering::SeqCst) && before == 0 {
            // The main thread waits for a line; a failed hint is no loss.
            let _ = writeln!(std::io::stderr(), "\n(Ctrl-C again or /quit leaves)");
            return;
        }
        // Loading or waiting for input: nothing there listens, and nothing there needs to be put in order.
        std::process::exit(INTERRUPTED);
    }

    /// Whether Ctrl-C was pressed since the last [`forget`](Self::forget).
    pub(super) fn pressed(&self) -> bool {
        self.presses.load(Ordering::SeqCst) > 0
    }

    /// Forgets earlier presses.
    pub(super) fn forget(&self) {
        self.presses.store(0, Ordering::SeqCst);
    }

    /// Says that an answer is being written until the guard is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Guard {
        Guard::set(Arc::clone(self), |interrupts| &interrupts.answering)
    }

    /// Says that a conversation is open until the guard is dropped.
    pub(super) fn chatting(self: &Arc<Self>) -> Guard {
        Guard::set(Arc::clone(self), |interrupts| &interrupts.chatting)
    }
}

/// Resets a flag when dropped.
pub(super) struct Guard {
    interrupts: Arc<Interrupts>,
    flag: fn(&Interrupts) -> &AtomicBool,
}

impl Guard {
    fn set(interrupts: Arc<Interrupts>, flag: fn(&Interrupts) -> &AtomicBool) -> Self {
        flag(&interrupts).store(true, Ordering::SeqCst);
        Self { interrupts, flag }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        (self.flag)(&self.interrupts).store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_during_an_answer_is_only_counted() {
        let interrupts = Arc::new(Interrupts::default());
        let guard = interrupts.answering();
        interrupts.press();
        assert!(interrupts.pressed());
        drop(guard);
        assert!(!interrupts.answering.load(Ordering::SeqCst));
        interrupts.forget();
        assert!(!interrupts.pressed());
    }

    #[test]
    fn the_first_press_at_the_prompt_of_a_chat_is_forgiven() {
        let interrupts = Arc::new(Interrupts::default());
        let _guard = interrupts.chatting();
        interrupts.press();
        assert!(interrupts.pressed());
    }
}
