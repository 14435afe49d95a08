//! The REST contract, request by request.

mod batch;
mod conditions;
mod filters;
mod lists;
mod methods;
mod pages;
mod records;
mod references;
mod statistics;
mod totals;
