// A TURN server made of pion/turn, for tests/bench.sh: one user, one listener for UDP, relayed addresses on loopback.
package main

import (
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/pion/turn/v2"
)

func main() {
	conn, err := net.ListenPacket("udp4", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	key := turn.GenerateAuthKey("u", "realm", "p")
	loopback := net.IPv4(127, 0, 0, 1)
	_, err = turn.NewServer(turn.ServerConfig{
		Realm: "realm",
		AuthHandler: func(username, realm string, source net.Addr) ([]byte, bool) {
			return key, username == "u"
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: loopback, Address: loopback.String()},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
