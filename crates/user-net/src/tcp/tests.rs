//! The flows against a second smoltcp that plays the guest, and against segments made by hand.

mod by_hand;
mod guest;
mod hostile;
mod limits;
mod patience;
mod random;
mod transfer;
mod world;
