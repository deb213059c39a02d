use crate::check::normal;
use scadles::ops::elementwise;

#[test]
fn add_reaches_every_element() {
    for len in [0, 1, 17, 100_003] {
        let (a, b) = (normal(len, 1), normal(len, 2));
        let mut sum = a.clone();
        elementwise::add_inplace(&mut sum, &b);
        assert!(sum.iter().zip(a.iter().zip(&b)).all(|(sum, (a, b))| *sum == a + b));
    }
}
