//! `kernels/add_scaled.cu` against [`scadles::aggregate::add_scaled`].

use crate::support::{LENGTHS, Vector, assert_same_bits, device_or_skip, edges, normal};
use scadles::aggregate::add_scaled;

#[test]
fn add_scaled_has_the_bits_of_the_cpu() {
    let Some(device) = device_or_skip("add_scaled_has_the_bits_of_the_cpu") else { return };
    let check = |out: &[f32], x: &[f32], weight: f32| {
        let mut expected = out.to_vec();
        add_scaled(0, x, weight, &mut expected).unwrap();
        let (mut out, x) = (Vector::new(&device, out), Vector::new(&device, x));
        device.add_scaled(out.view_mut(), x.view(), weight).unwrap();
        assert_same_bits(&out.read(), &expected, &format!("{} elements, weight {weight}", expected.len()));
    };
    for len in LENGTHS {
        check(&normal(len, 1), &normal(len, 2), 0.1);
    }
    for weight in [1.0, -0.3, 1e-38, 3e38, f32::INFINITY, f32::NAN] {
        check(&edges(0), &edges(1), weight);
    }
    // Weight 0: what is in x does not matter.
    check(&normal(9, 1), &[f32::NAN; 9], 0.0);
}

#[test]
fn add_scaled_refuses_other_lengths() {
    let Some(device) = device_or_skip("add_scaled_refuses_other_lengths") else { return };
    let (mut out, x) = (Vector::new(&device, &[1.0; 5]), Vector::new(&device, &[1.0; 4]));
    let error = device.add_scaled(out.view_mut(), x.view(), 1.0).unwrap_err();
    assert_eq!(error.to_string(), "kernel add_scaled_f32: x has 4 elements, expected 5");
    assert_eq!(out.read(), [1.0; 5]);
}
