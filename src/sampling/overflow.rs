//! What happens to a prompt for which the context is too small.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What to do when a prompt does not leave room for its answer. What is left out is told with the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Refuse a prompt that fills the context; take one that leaves room for a token or more as it is.
    #[default]
    Error,
    /// Leave out whole turns of a conversation, the oldest first: a user message with all that follows it up to the next. System
    /// messages and the last turn stay. What has to go is rounded up to quarters of the context, where the turns give as much, so
    /// that the next prompts of the conversation begin alike. Prompts of other kinds have no turns, and stay as they are.
    DropOldestTurns,
    /// Cut the middle out of the longest texts of a conversation, system messages excepted, or out of the one text or list of
    /// token ids.
    TruncateMiddle,
}

impl Overflow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Error, Self::DropOldestTurns, Self::TruncateMiddle];

    /// `error`, `drop_oldest_turns` or `truncate_middle`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::DropOldestTurns => "drop_oldest_turns",
            Self::TruncateMiddle => "truncate_middle",
        }
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Overflow {
    type Err = Error;

    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for any other word.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| {
            Error::invalid(
                "overflow",
                format!("`overflow` is {name:?}."),
                "Use \"error\", \"drop_oldest_turns\" or \"truncate_middle\".",
            )
        })
    }
}
