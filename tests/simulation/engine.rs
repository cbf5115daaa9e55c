//! The engine and what it needs, compiled from the product's own sources: nothing else of the
//! product is here, and nothing here has a socket, a clock or a thread.

// What only the shells use is not used here.
#![allow(dead_code)]

#[path = "../../src/catalogue/mod.rs"]
pub mod catalogue;
#[path = "../../src/engine/mod.rs"]
pub mod engine;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
