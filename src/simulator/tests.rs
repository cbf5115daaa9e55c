//! Tests of the running simulator.
