//! DDSketch: quantiles with a relative error bound, exactly mergeable.
