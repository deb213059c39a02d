//! From files, a generator or the network to a [`Dataset`]: images as u8, `[len, H, W, C]`, with one label each.
//!
//! | Source | Function | Result |
//! | --- | --- | --- |
//! | CIFAR-10 or CIFAR-100 in the original binary layout | [`load()`] | [`DataSets`] |
//! | generated, seeded, needs no file | [`embedded()`] | [`DataSets`] |
//! | the University of Toronto's server | [`fetch::fetch`] | a folder for [`load()`] |
//!
//! [`partition()`] then says which training samples each device draws from.

pub mod cifar;
pub mod dataset;
pub mod embedded;
pub mod fetch;
pub mod load;
pub mod partition;

pub use dataset::{DataSets, Dataset, ImageShape, Normalization};
pub use embedded::embedded;
pub use load::{DataError, load};
pub use partition::{PartitionError, partition};
