//! `kernels/peak_wgmma.cu`.

use crate::hopper_cases::hopper_or_skip;
use crate::peak::check_product;
use scadles::device::cuda::peak::{self, Product};

#[test]
fn wgmma_multiplies() {
    let Some(device) = hopper_or_skip("wgmma_multiplies") else { return };
    check_product(&device, peak::wgmma, Product::WGMMA);
}
