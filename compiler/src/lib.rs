//! Compiles KasprAgent specs.
