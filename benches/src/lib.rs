//! What the benches under `benches/` share.
