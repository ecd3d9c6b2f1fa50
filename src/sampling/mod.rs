//! A row of logits to the next token.
