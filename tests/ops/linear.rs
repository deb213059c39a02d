//! A linear layer's passes are a 1x1 convolution's; its bias gradient is a sum over rows.

use crate::conv2d::{check_all_passes, uniform};
use scadles::ops::linear;

#[test]
fn linear_layers_match_the_reference() {
    for (n, c, k) in [(1, 1, 1), (3, 64, 10), (8, 512, 10), (13, 17, 33), (64, 64, 100)] {
        check_all_passes(&linear::shape(c, k), n);
    }
}

#[test]
fn bias_gradient_matches_a_sum_in_f64() {
    for (rows, k) in [(1, 1), (511, 3), (513, 10), (1537, 64)] {
        let dy = uniform(rows * k, 7);
        let mut dbias = vec![f32::NAN; k];
        let mut scratch = vec![f32::NAN; linear::bias_scratch_len(rows, k)];
        linear::bias_backward(rows, k, &dy, &mut dbias, &mut scratch);
        for (channel, &got) in dbias.iter().enumerate() {
            let want: f64 = dy.iter().skip(channel).step_by(k).map(|&v| f64::from(v)).sum();
            // Blocks of 512 rows are summed one by one: at most about 512 + blocks roundings of sums below 512.
            let tolerance = 512.0 * 512.0 * f64::from(f32::EPSILON) / 8.0;
            let error = (f64::from(got) - want).abs();
            assert!(error <= tolerance, "dbias[{channel}] of {rows} rows: {got}, expected {want}");
        }
    }
}

#[test]
fn bias_gradient_is_the_same_bytes_on_any_number_of_threads() {
    let (rows, k) = (5000, 13);
    let dy = uniform(rows * k, 8);
    let on = |threads: usize| {
        let mut dbias = vec![0.0; k];
        let mut scratch = vec![0.0; linear::bias_scratch_len(rows, k)];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| linear::bias_backward(rows, k, &dy, &mut dbias, &mut scratch));
        dbias.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(on(1), on(2));
    assert_eq!(on(1), on(3));
}
