//! Models, their live views, verification, frozen dates.
