//! Carries what a guest may reach to where it may reach it.
