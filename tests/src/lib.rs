//! Starts real servers, brokers and devices for whole-system scenarios.
