//! Statistics the rollout decides by, pure and seeded.
