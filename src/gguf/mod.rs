//! Bytes of a GGUF file to a validated, typed description of it. No Candle, no trust.
