fn main() -> Result<(), Box<dyn std::error::Error>> {
    micro_build::compile_protos(&["proto/greeter.proto"], &["proto"])?;
    Ok(())
}
