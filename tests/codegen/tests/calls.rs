//! Every case, called: stubs and handlers as generated, over real sockets.

mod calls {
    mod fleet;

    mod bare;
    mod deep;
    mod kinds;
    mod known;
    mod optional;
    mod options;
    mod reserved;
}
