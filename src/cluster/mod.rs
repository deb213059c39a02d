//! What makes a simulated edge cluster: time ([`clock`]), links ([`link`]) and compute speeds ([`device_profile`]).

pub mod clock;
pub mod device_profile;
pub mod link;

pub use clock::Clock;
pub use device_profile::DeviceProfile;
pub use link::Link;
