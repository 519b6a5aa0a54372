mod driver;
mod machine;
mod options;
mod scripted;
