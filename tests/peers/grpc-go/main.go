// grpc-go's client with its round_robin, under the faults that ours is under.
//
//	grpc-go CALLERS PAUSE_MS DEADLINE_MS
//
// A line of its input is the nodes' addresses, with commas between; at the end of its input it ends its
// calls. A line of its output is a call of ledger.proto: ID r|w BEGAN ENDED CODE TEXT, the times in
// microseconds since 1970, the text the answering node's id if the code is 0. Nothing is set that is not
// grpc-go's default but the policy.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var numbers [3]int
	if len(args) != len(numbers) {
		return fmt.Errorf("usage: grpc-go CALLERS PAUSE_MS DEADLINE_MS")
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

	nodes := manual.NewBuilderWithScheme("nodes")
	nodes.InitialState(resolver.State{})
	conn, err := grpc.NewClient(nodes.Scheme()+":///ledger",
		grpc.WithResolvers(nodes),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{})))
	if err != nil {
		return err
	}
	defer conn.Close()
	// The resolver is built now: what comes on the input can be told to it.
	conn.Connect()

	var (
		ids      atomic.Uint64
		over     atomic.Bool
		out      = make(chan string, 1024)
		tasks    sync.WaitGroup
		inputEnd = make(chan struct{})
	)
	first := make(chan struct{})
	go func() {
		defer close(inputEnd)
		lines, isFirst := bufio.NewScanner(os.Stdin), true
		for lines.Scan() {
			nodes.UpdateState(state(lines.Text()))
			if isFirst {
				isFirst = false
				close(first)
			}
		}
	}()
	<-first
	for range callers {
		tasks.Go(func() {
			for !over.Load() {
				out <- call(conn, ids.Add(1), deadline)
				time.Sleep(pause)
			}
		})
	}
	go func() {
		<-inputEnd
		over.Store(true)
		tasks.Wait()
		close(out)
	}()
	for line := range out {
		fmt.Println(line)
	}
	return nil
}

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
