//! Tests of the whole crate, in one binary.

#[cfg(test)]
mod cookbook;
#[cfg(test)]
mod demo_model;
#[cfg(test)]
mod files;
#[cfg(test)]
mod hygiene;
#[cfg(test)]
mod layering;
#[cfg(test)]
mod longrope;
#[cfg(test)]
mod native;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod source;
#[cfg(test)]
mod tiny_models;
