//! Rank 2: the engine behind `memory:`.
