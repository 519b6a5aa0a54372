// A real go-micro node, and a real go-micro client, with go-micro's default registry, mDNS, or with
// its own over NATS: gomicro-v5 -nats HOST:PORT ..
//
//	gomicro-v5 server NAME ADDRESS   serves echo.proto under NAME, says "serving ID", leaves at SIGTERM
//	gomicro-v5 client NAME           obeys the lines of its input, each with one line of output:
//	                                   nodes        the ids of NAME's nodes, sorted
//	                                   services     the names of all services, sorted
//	                                   call TEXT    NAME's Echo.Say, and its answer
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/client"
	grpcclient "go-micro.dev/v5/client/grpc"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/nats"
	"go-micro.dev/v5/server"
	grpcserver "go-micro.dev/v5/server/grpc"

	"micro-tests/gomicro-v5/echo"
)

// Echo is its handler. go-micro finds the methods by reflection.
type Echo struct{ id string }

// Say sends the payload back.
func (e *Echo) Say(_ context.Context, in *echo.SayRequest, out *echo.SayReply) error {
	out.Payload = in.Payload
	out.Node = e.id
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	reg := registry.NewMDNSRegistry()
	if len(args) > 2 && args[0] == "-nats" {
		reg = nats.NewNatsRegistry(registry.Addrs(args[1]))
		args = args[2:]
	}
	switch {
	case len(args) == 3 && args[0] == "server":
		return serve(reg, args[1], args[2])
	case len(args) == 2 && args[0] == "client":
		return obey(reg, args[1])
	}
	return fmt.Errorf("usage: gomicro-v5 [-nats HOST:PORT] server NAME ADDRESS | client NAME")
}

func serve(reg registry.Registry, name, address string) error {
	srv := grpcserver.NewServer()
	service := micro.NewService(
		micro.Server(srv),
		micro.Client(grpcclient.NewClient()),
		micro.Registry(reg),
		micro.Name(name),
		micro.Address(address),
		micro.AfterStart(func() error {
			fmt.Printf("serving %s-%s\n", name, srv.Options().Id)
			return nil
		}),
	)
	handler := srv.NewHandler(&Echo{id: srv.Options().Id}, server.InternalHandler(false))
	if err := srv.Handle(handler); err != nil {
		return err
	}
	return service.Run()
}

func obey(reg registry.Registry, name string) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "nodes":
			fmt.Println(nodes(reg, name))
		case "services":
			fmt.Println(services(reg))
		case "call":
			fmt.Println(call(reg, name, rest))
		default:
			return fmt.Errorf("unknown word %q", word)
		}
	}
	return lines.Err()
}

func nodes(reg registry.Registry, name string) string {
	found, err := reg.GetService(name)
	if err != nil && err != registry.ErrNotFound {
		return "error " + err.Error()
	}
	ids := []string{}
	for _, service := range found {
		for _, node := range service.Nodes {
			ids = append(ids, node.Id)
		}
	}
	sort.Strings(ids)
	return strings.TrimSpace("nodes " + strings.Join(ids, " "))
}

func services(reg registry.Registry) string {
	found, err := reg.ListServices()
	if err != nil {
		return "error " + err.Error()
	}
	names := []string{}
	for _, service := range found {
		names = append(names, service.Name)
	}
	sort.Strings(names)
	return strings.TrimSpace("services " + strings.Join(names, " "))
}

// A new client each time: its selector would remember nodes for a minute.
func call(reg registry.Registry, name, text string) string {
	c := grpcclient.NewClient(client.Registry(reg))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request := c.NewRequest(name, "Echo.Say", &echo.SayRequest{Payload: []byte(text)})
	var reply echo.SayReply
	if err := c.Call(ctx, request, &reply); err != nil {
		return "error " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	return "reply " + string(reply.Payload)
}
