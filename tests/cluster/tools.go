//go:build tools

// Package cluster pins the control plane that 'make test-cluster' runs, and its command line.
package cluster

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
