mod driver;
mod log;
mod machine;
mod options;
mod scripted;
