// grpc-go's client with its round_robin, under the faults that ours is under.
//
//	grpc-go [-tls FOLDER] [-give-up CALLS] CALLERS PAUSE_MS DEADLINE_MS
//
// Over TLS it takes ca, cert, key and name from the folder, once, at its start. Beside its callers it begins
// as many calls as are to be given up, and gives each up before it is answered.
//
// A line of its input is the nodes' addresses, with commas between; of lists that come while grpc-go takes up
// another only the last is told to it. At the end of its input it ends its calls, once those that are to be
// given up were. A line of its output is a call of ledger.proto: ID r|w BEGAN ENDED CODE TEXT, the times in
// microseconds since 1970, the text the answering node's id if the code is 0. Nothing is set that is not
// grpc-go's default but the policy.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

func main() {
	folder := flag.String("tls", "", "the folder with ca, cert, key and name")
	toGiveUp := flag.Uint64("give-up", 0, "how many calls to give up")
	flag.Parse()
	if err := run(*folder, *toGiveUp, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(folder string, toGiveUp uint64, args []string) error {
	var numbers [3]int
	if len(args) != len(numbers) {
		return fmt.Errorf("usage: grpc-go [-tls FOLDER] [-give-up CALLS] CALLERS PAUSE_MS DEADLINE_MS")
	}
	for i, arg := range args {
		number, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		numbers[i] = number
	}
	callers, pause := numbers[0], time.Duration(numbers[1])*time.Millisecond
	deadline := time.Duration(numbers[2]) * time.Millisecond

	creds, err := transport(folder)
	if err != nil {
		return err
	}
	nodes := manual.NewBuilderWithScheme("nodes")
	conn, err := grpc.NewClient(nodes.Scheme()+":///ledger",
		grpc.WithResolvers(nodes),
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	if err != nil {
		return err
	}
	// The resolver is built now: what comes on the input can be told to it.
	conn.Connect()

	var (
		ids      atomic.Uint64
		over     atomic.Bool
		out      = make(chan string, 1024)
		tasks    sync.WaitGroup
		inputEnd = make(chan struct{})
	)
	lists := make(chan string, 1)
	go func() {
		defer close(inputEnd)
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, longestLine)
		for lines.Scan() {
			select {
			case <-lists:
			default:
			}
			lists <- lines.Text()
		}
		if err := lines.Err(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}()
	first := <-lists
	go func() {
		// For many nodes each takes up to minutes, and calls are made meanwhile.
		nodes.UpdateState(state(first))
		for list := range lists {
			nodes.UpdateState(state(list))
		}
	}()
	for range callers {
		tasks.Go(func() {
			for !over.Load() {
				out <- call(conn, ids.Add(1), deadline)
				time.Sleep(pause)
			}
		})
	}
	given := make(chan struct{})
	go func() {
		defer close(given)
		giveUp(conn, toGiveUp)
	}()
	go func() {
		<-inputEnd
		<-given
		over.Store(true)
		tasks.Wait()
		close(out)
	}()
	for line := range out {
		fmt.Println(line)
	}
	return nil
}

// 10 000 addresses have 140 000.
const longestLine = 1 << 20

func state(line string) resolver.State {
	var state resolver.State
	for _, address := range strings.Split(line, ",") {
		if address != "" {
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{
				Addresses: []resolver.Address{{Addr: address}},
			})
		}
	}
	return state
}

func call(conn *grpc.ClientConn, id uint64, deadline time.Duration) string {
	method, letter := "/ledger.v1.Ledger/Write", "w"
	if id%2 == 0 {
		method, letter = "/ledger.v1.Ledger/Read", "r"
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	began := time.Now().UnixMicro()
	var node string
	err := conn.Invoke(ctx, method, &id, &node)
	ended := time.Now().UnixMicro()
	if err != nil {
		why := status.Convert(err)
		text := strings.ReplaceAll(why.Message(), "\n", " ")
		return fmt.Sprintf("%d %s %d %d %d %s", id, letter, began, ended, why.Code(), text)
	}
	return fmt.Sprintf("%d %s %d %d 0 %s", id, letter, began, ended, node)
}

const (
	// How many calls that are to be given up are under way at a time.
	atOnce = 500
	// A handler takes that long for them, as long as one is waited for at the most.
	takes = 100 * time.Millisecond
	// Their ids begin there, apart from the callers'.
	firstGivenUp = 1 << 33
)

// giveUp begins calls, of them a third streams, until so many were given up before they were answered.
func giveUp(conn *grpc.ClientConn, count uint64) {
	var (
		next, gaveUp atomic.Uint64
		tasks        sync.WaitGroup
	)
	for range atOnce {
		tasks.Go(func() {
			for gaveUp.Load() < count {
				ctx, cancel := context.WithTimeout(context.Background(), rand.N(takes))
				err := begin(ctx, conn, firstGivenUp+next.Add(1))
				if err != nil && ctx.Err() != nil {
					gaveUp.Add(1)
				}
				cancel()
			}
		})
	}
	tasks.Wait()
}

// begin calls, and reads a stream to its end, which it does not have.
func begin(ctx context.Context, conn *grpc.ClientConn, id uint64) error {
	var node string
	switch id % 3 {
	case 0:
		return conn.Invoke(ctx, "/ledger.v1.Ledger/Read", &id, &node)
	case 1:
		return conn.Invoke(ctx, "/ledger.v1.Ledger/Write", &id, &node)
	}
	receipts, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/ledger.v1.Follower/Follow")
	if err != nil {
		return err
	}
	if err := receipts.SendMsg(&id); err != nil {
		return err
	}
	if err := receipts.CloseSend(); err != nil {
		return err
	}
	for err == nil {
		err = receipts.RecvMsg(&node)
	}
	return err
}

// codec writes an Entry and reads a Receipt: both have the one field.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(value any) ([]byte, error) {
	entry := protowire.AppendTag(nil, 1, protowire.VarintType)
	return protowire.AppendVarint(entry, *value.(*uint64)), nil
}

func (codec) Unmarshal(data []byte, value any) error {
	number, kind, length := protowire.ConsumeTag(data)
	if length < 0 || number != 1 || kind != protowire.BytesType {
		return fmt.Errorf("no receipt: %v", data)
	}
	node, length := protowire.ConsumeString(data[length:])
	if length < 0 {
		return protowire.ParseError(length)
	}
	*value.(*string) = node
	return nil
}
