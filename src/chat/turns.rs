//! The turns of a conversation.

use std::ops::Range;

use super::message::Message;

/// Roles whose messages belong to no turn.
const STANDING: [&str; 2] = ["system", "developer"];

/// Whether a message says what holds for the whole conversation.
pub(crate) fn is_standing(message: &Message) -> bool {
    STANDING.contains(&message.role.as_str())
}

/// The turns of a conversation, in their order, as places in `messages`. A turn is a user message with all that follows up to the
/// next one; what comes before the first is a turn too. System messages belong to none, wherever they stand.
///
/// ```
/// use phicandle::chat::{Message, turns};
///
/// let talk = ["system", "user", "assistant", "tool", "assistant", "user"].map(|role| Message::new(role, ""));
/// assert_eq!(turns(&talk), [1..5, 5..6]);
/// ```
pub fn turns(messages: &[Message]) -> Vec<Range<usize>> {
    let mut turns: Vec<Range<usize>> = Vec::new();
    for (at, message) in messages.iter().enumerate().filter(|(_, message)| !is_standing(message)) {
        match turns.last_mut() {
            Some(turn) if message.role != "user" => turn.end = at + 1,
            _ => turns.push(at..at + 1),
        }
    }
    turns
}

/// The conversation without its `count` oldest [`turns`]; its system messages stay.
pub fn without_oldest(messages: &[Message], count: usize) -> Vec<Message> {
    let from = turns(messages).get(count).map_or(messages.len(), |turn| turn.start);
    let (before, after) = messages.split_at(from);
    before.iter().filter(|message| is_standing(message)).chain(after).cloned().collect()
}
