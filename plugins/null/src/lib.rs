//! A method that declares nothing: training with it must equal training without a plugin, to the
//! last bit.

use kd_plugin::raw::{BackwardArgs, ForwardArgs, RawMethod, RawPlan};
use kd_plugin::{Call, MethodError, NoConfig, TapPattern, Taps};

/// Nothing in, nothing out.
pub struct Null;

impl RawMethod for Null {
    type Config = NoConfig;
    type Saved = ();

    const ID: &'static str = "null";
    const TITLE: &'static str = "No distillation";
    const DOC: &'static str =
        "Declares no tap, parameter or loss; the control of every comparison.";
    const TAPS: &'static [TapPattern] = &[];

    fn new(_: NoConfig) -> Result<Self, MethodError> {
        Ok(Null)
    }

    fn plan(&mut self, _: &Taps) -> Result<RawPlan, MethodError> {
        Ok(RawPlan::default())
    }

    fn forward(&mut self, _: &Call<'_>, _: &mut ForwardArgs<'_>) -> Result<(), MethodError> {
        Ok(())
    }

    fn backward(
        &mut self,
        _: &Call<'_>,
        args: &mut BackwardArgs<'_>,
        (): &mut (),
    ) -> Result<(), MethodError> {
        // No tap is asked for, but a host may bind some all the same.
        args.d_taps
            .iter_mut()
            .try_for_each(|place| place.write_zero())
    }
}

kd_plugin::export_raw!(Null);

#[cfg(test)]
mod tests {
    use kd_plugin::testkit::{Bench, TapShape};
    use serde_json::json;

    use super::*;

    #[test]
    fn it_declares_and_returns_nothing() {
        let mut bench = Bench::new_raw::<Null>(&json!({}), &[]).unwrap();
        assert!(bench.params().is_empty() && bench.losses().is_empty() && bench.maps().is_empty());
        let out = bench.forward().unwrap();
        assert!(out.losses.is_empty() && out.maps.is_empty());
        assert!(bench.backward(&out, &[], &[]).unwrap().taps.is_empty());
    }

    #[test]
    fn a_tap_bound_all_the_same_is_left_alone() {
        let taps = TapShape::pair("neck.p3", [1, 2, 3, 3], [1, 2, 3, 3]);
        let mut bench = Bench::new_raw::<Null>(&json!({}), &taps).unwrap();
        assert!(!bench.has_grad(0));
        let out = bench.forward().unwrap();
        assert!(bench.backward(&out, &[], &[]).unwrap().taps[0].is_empty());
    }

    #[test]
    fn an_option_is_refused() {
        let error = Bench::new_raw::<Null>(&json!({"weight": 1}), &[]).unwrap_err();
        assert!(error.message.contains("`/weight`"), "{error}");
    }
}
