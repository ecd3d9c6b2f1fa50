//! Turns, and conversations without the oldest of them.

use proptest::prelude::*;

use super::super::*;

/// Messages of any roles in any order, each with its number as text.
fn talks() -> impl Strategy<Value = Vec<Message>> {
    let role = prop::sample::select(vec!["system", "developer", "user", "user", "assistant", "tool"]);
    prop::collection::vec(role, 0..14).prop_map(|roles| {
        roles.into_iter().enumerate().map(|(at, role)| Message::new(role, at.to_string())).collect()
    })
}

proptest! {
    #[test]
    fn every_message_but_the_system_s_is_in_one_turn_that_a_user_opens(talk in talks()) {
        let turns = turns(&talk);
        for (at, message) in talk.iter().enumerate() {
            let holds = turns.iter().filter(|turn| turn.contains(&at)).count();
            let system = matches!(message.role.as_str(), "system" | "developer");
            prop_assert!(holds == 1 || (system && holds < 2), "{at} of {talk:?}: {turns:?}");
            prop_assert!(message.role != "user" || turns.iter().any(|turn| turn.start == at));
        }
        for (number, turn) in turns.iter().enumerate() {
            prop_assert!(number == 0 || talk[turn.start].role == "user");
            prop_assert!(talk[turn.clone()].iter().filter(|message| message.role == "user").count() <= 1);
        }
    }

    /// Against a list that is made by going through the messages from the end.
    #[test]
    fn the_system_messages_the_order_and_the_later_turns_are_kept(talk in talks(), count in 0usize..8) {
        let left = without_oldest(&talk, count);
        let of = |list: &[Message], system: bool| -> Vec<Message> {
            let is_system = |message: &&Message| matches!(message.role.as_str(), "system" | "developer");
            list.iter().filter(|message| is_system(message) == system).cloned().collect()
        };
        prop_assert_eq!(of(&left, true), of(&talk, true));
        let mut later = Vec::new();
        let mut said = of(&talk, false);
        let turns = turns(&talk).len();
        for _ in count..turns {
            loop {
                let Some(message) = said.pop() else { break };
                let opens = message.role == "user";
                later.insert(0, message);
                if opens {
                    break;
                }
            }
        }
        prop_assert_eq!(of(&left, false), later);
        let numbers: Vec<usize> = left.iter().map(|message| message.content.parse().unwrap()).collect();
        prop_assert!(numbers.is_sorted());
    }
}
