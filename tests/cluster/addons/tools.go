//go:build tools

// Package addons pins what the fleet's cluster has beside Kubernetes: a network for each pod, and Kueue.
package addons

import (
	_ "github.com/containernetworking/plugins/plugins/ipam/host-local"
	_ "github.com/containernetworking/plugins/plugins/main/bridge"
	_ "github.com/containernetworking/plugins/plugins/main/loopback"
	_ "sigs.k8s.io/kueue/cmd/kueue"
)
