"""Compiled loops over the pairs of a `RotationPlan`, for many parameter vectors side by side.

Lanes are the columns of the coefficients: for each client one a read-out. A lane's arithmetic and
its order are the same however many lanes there are, so its numbers are too: nothing here may be
compiled with ``fastmath``. `quantum.engines.pauli.compiled` loads this file, which imports nothing
of ours: Numba's stored code knows of changes in the file alone.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

ROWS = 8
"""Rows of one block of encoded rows, which are the inner loop of all that is done with rows."""

FEW_LANES = 32


@njit(cache=True, nogil=True)
def rotate(x, y, cos, sin):  # type: ignore[no-untyped-def]
    """Rotate one pair of every lane, all (lanes,); few enough arrays that LLVM makes it vectors."""
    for lane in range(len(x)):
        a, b = x[lane], y[lane]
        x[lane] = cos[lane] * a - sin[lane] * b
        y[lane] = cos[lane] * b + sin[lane] * a


@njit(cache=True, nogil=True)
def add_slope(slope, x, y, dx, dy):  # type: ignore[no-untyped-def]
    """Add one rotated pair's part of the gradient to the angle, all (lanes,)."""
    for lane in range(len(x)):
        slope[lane] += dy[lane] * x[lane] - dx[lane] * y[lane]


@njit(cache=True, nogil=True)
def rotate_forward(v, first, second, starts, cos, sin):  # type: ignore[no-untyped-def]
    """Rotate coefficients (K, lanes) through all rotations; cosines and sines are (G, lanes)."""
    lanes = v.shape[1]
    for g in range(len(starts) - 1):
        if lanes > FEW_LANES:
            for p in range(starts[g], starts[g + 1]):
                rotate(v[first[p]], v[second[p]], cos[g], sin[g])
            continue
        for lane in range(lanes):
            c, s = cos[g, lane], sin[g, lane]
            for p in range(starts[g], starts[g + 1]):
                a, b = first[p], second[p]
                x, y = v[a, lane], v[b, lane]
                v[a, lane] = c * x - s * y
                v[b, lane] = c * y + s * x


@njit(cache=True, nogil=True)
def rotate_back(v, w, first, second, starts, cos, sin, slopes):  # type: ignore[no-untyped-def]
    """Undo `rotate_forward`, and collect the gradient to each rotation's angle.

    ``w`` holds the gradient to the coefficients ``v`` (K, lanes), and goes back with them;
    ``slopes`` (G, lanes) is written, ``sin`` is negated.
    """
    lanes = v.shape[1]
    slopes[:] = 0.0
    for g in range(len(starts) - 2, -1, -1):
        if lanes > FEW_LANES:
            for lane in range(lanes):
                sin[g, lane] = -sin[g, lane]
            for p in range(starts[g], starts[g + 1]):
                a, b = first[p], second[p]
                add_slope(slopes[g], v[a], v[b], w[a], w[b])
                rotate(v[a], v[b], cos[g], sin[g])
                rotate(w[a], w[b], cos[g], sin[g])
            continue
        for lane in range(lanes):
            c, s, slope = cos[g, lane], -sin[g, lane], 0.0
            for p in range(starts[g], starts[g + 1]):
                a, b = first[p], second[p]
                x, y, dx, dy = v[a, lane], v[b, lane], w[a, lane], w[b, lane]
                slope += dy * x - dx * y
                v[a, lane] = c * x - s * y
                v[b, lane] = c * y + s * x
                w[a, lane] = c * dx - s * dy
                w[b, lane] = c * dy + s * dx
            slopes[g, lane] = slope


@njit(cache=True, nogil=True)
def angles_of(theta, slot, factor, offset, readouts, cos, sin):  # type: ignore[no-untyped-def]
    """Write cosines and sines (G, clients R) of the angles of slots ``theta`` (clients, D)."""
    for g in range(len(slot)):
        for client in range(theta.shape[0]):
            t = offset[g]
            if slot[g] >= 0:
                t += factor[g] * theta[client, slot[g]]
            c, s = math.cos(t), math.sin(t)
            for r in range(readouts):
                cos[g, client * readouts + r] = c
                sin[g, client * readouts + r] = s


@njit(cache=True, nogil=True)
def expectations_of(blocks, v, lane, columns, z):  # type: ignore[no-untyped-def]
    """Write a lane's expectations of rows: blocks (B, M, 8), z (8 B,)."""
    for block in range(blocks.shape[0]):
        part = z[block * ROWS : (block + 1) * ROWS]
        part[:] = 0.0
        for m in range(len(columns)):
            value, entries = v[columns[m], lane], blocks[block, m]
            for k in range(ROWS):
                part[k] += entries[k] * value


@njit(cache=True, nogil=True)
def pull_rows(blocks, gradient, columns, w, lane, sums):  # type: ignore[no-untyped-def]
    """Write the gradient (K,) to a lane of ``w`` from that (8 B,); ``sums`` (M, 8) is scratch."""
    sums[:] = 0.0
    for block in range(blocks.shape[0]):
        part = gradient[block * ROWS : (block + 1) * ROWS]
        for m in range(len(columns)):
            entries, into = blocks[block, m], sums[m]
            for k in range(ROWS):
                into[k] += entries[k] * part[k]
    for m in range(len(columns)):
        total = 0.0
        for k in range(ROWS):
            total += sums[m, k]
        w[columns[m], lane] = total


@njit(cache=True, nogil=True)
def softmax(logits, divisor, logs, shares):  # type: ignore[no-untyped-def]
    """Write the logarithm of ``softmax(logits / divisor)``, and itself, all (C,)."""
    top = logits[0]
    for c in range(1, len(logits)):
        top = max(top, logits[c])
    total = 0.0
    for c in range(len(logits)):
        logs[c] = (logits[c] - top) / divisor
        shares[c] = math.exp(logs[c])
        total += shares[c]
    log_total = math.log(total)
    for c in range(len(logits)):
        logs[c] -= log_total
        shares[c] /= total


@njit(cache=True, nogil=True)
def logits_of(z, i, head, linear, logits):  # type: ignore[no-untyped-def]
    """Write the logits (C,) of row i from the expectations (K, rows) and the head (H,)."""
    measured, classes = z.shape[0], len(logits)
    if linear:
        for c in range(classes):
            total = head[classes * measured + c]
            for k in range(measured):
                total += head[c * measured + k] * z[k, i]
            logits[c] = total
        return
    skip = classes - measured  # with two classes the first logit is 0
    for k in range(measured):
        logits[skip + k] = head[k] * z[k, i] + head[measured + k]


@njit(cache=True, nogil=True)
def pull_head(z, i, head, linear, slope, dz, d_head):  # type: ignore[no-untyped-def]
    """Undo `logits_of`: add to ``dz``, which is 0, and the head's gradient from row i's (C,)."""
    measured, classes = z.shape[0], len(slope)
    if linear:
        for c in range(classes):
            d_head[classes * measured + c] += slope[c]
            for k in range(measured):
                dz[k, i] += slope[c] * head[c * measured + k]
                d_head[c * measured + k] += slope[c] * z[k, i]
        return
    skip = classes - measured
    for k in range(measured):
        d = slope[skip + k]
        dz[k, i] = d * head[k]
        d_head[k] += d * z[k, i]
        d_head[measured + k] += d


# NumPy's division: weights that are 0 make one client's loss NaN, and do not end the others'.
@njit(cache=True, nogil=True, error_model="numpy")
def row_losses(z, rows, terms, linear, head, dz, d_head):  # type: ignore[no-untyped-def]
    """``(1 - lambda) CE + lambda tau^2 KL`` of one client's rows, and its gradient.

    ``z`` (K, 8 B) are expectations; rows beyond the labels are none. ``rows`` holds each row's
    class, -1 where it has none; softened soft labels p (., C); ``sum_c p_c log p_c``; its weight in
    the divergence; but for the classes none where lambda is 0. ``terms``: weights of the classes
    (C,), lambda, tau. The gradients are written to ``dz`` and, of the ``head`` (H,), ``d_head``.
    """
    labels, soft, entropy, shares = rows
    weights, mix, tau = terms
    classes = len(weights)
    logits, slope = np.zeros(classes), np.zeros(classes)
    logs, guess = np.zeros(classes), np.zeros(classes)
    total, all_shares, loss, divergence = 0.0, 0.0, 0.0, 0.0
    for i in range(len(labels)):
        if labels[i] >= 0:
            total += weights[labels[i]]
        if mix > 0.0:
            all_shares += shares[i]
    dz[:] = 0.0
    d_head[:] = 0.0
    for i in range(len(labels)):
        logits_of(z, i, head, linear, logits)
        slope[:] = 0.0
        if labels[i] >= 0:
            softmax(logits, 1.0, logs, guess)
            part = (1.0 - mix) * weights[labels[i]] / total
            loss -= part * logs[labels[i]]
            for c in range(classes):
                slope[c] = part * guess[c]
            slope[labels[i]] -= part
        if mix > 0.0:
            softmax(logits, tau, logs, guess)
            part, given = mix * tau * shares[i] / all_shares, 0.0
            own = entropy[i]
            for c in range(classes):
                given += soft[i, c]
                own -= soft[i, c] * logs[c]
            divergence += shares[i] * own
            for c in range(classes):
                slope[c] += part * (given * guess[c] - soft[i, c])
        pull_head(z, i, head, linear, slope, dz, d_head)
    return loss + mix * tau * tau * divergence / all_shares if mix > 0.0 else loss


@njit(cache=True, nogil=True)
def copy_rows(blocks, chosen, into):  # type: ignore[no-untyped-def]
    """Copy the chosen rows of blocks (B, M, 8) into blocks of their own, zeros behind them."""
    into[:] = 0.0
    for i in range(len(chosen)):
        block, k = chosen[i] // ROWS, chosen[i] % ROWS
        into_block, into_k = i // ROWS, i % ROWS
        for m in range(blocks.shape[1]):
            into[into_block, m, into_k] = blocks[block, m, k]


@njit(cache=True, nogil=True)
def pull_to(theta, anchor, weight, gradient):  # type: ignore[no-untyped-def]
    """Return FedProx's term ``(mu / 2) ||theta - anchor||^2``; add its gradient."""
    distance = 0.0
    for d in range(len(theta)):
        distance += (theta[d] - anchor[d]) ** 2
        gradient[d] += weight * (theta[d] - anchor[d])
    return 0.5 * weight * distance


@njit(cache=True, nogil=True)
def adam(theta, gradient, first, second, step, rate):  # type: ignore[no-untyped-def]
    """One step of `quantum.training.optimisers.adam_step` in place; say if it is finite."""
    shrink_1, shrink_2, fine = 1.0 - 0.9 ** (step + 1), 1.0 - 0.999 ** (step + 1), True
    for d in range(len(theta)):
        first[d] = 0.9 * first[d] + 0.1 * gradient[d]
        second[d] = 0.999 * second[d] + 0.001 * gradient[d] * gradient[d]
        theta[d] -= (rate / shrink_1) * first[d] / (math.sqrt(second[d] / shrink_2) + 1e-6)
        fine = fine and math.isfinite(theta[d])
    return fine


@njit(cache=True, nogil=True)
def client_step(own, terms, linear, head, columns, v, w, lane, scratch, d_head):  # type: ignore[no-untyped-def]
    """One client's loss on its rows; its gradient goes into ``w`` and ``d_head``."""
    blocks, labels, soft, entropy, shares = own
    z, dz, sums = scratch
    measured, padded = z.shape[0], blocks.shape[0] * ROWS
    seen, slopes = z[:, :padded], dz[:, :padded]
    for k in range(measured):
        expectations_of(blocks, v, lane + k, columns, seen[k])
    loss = row_losses(seen, (labels, soft, entropy, shares), terms, linear, head, slopes, d_head)
    for k in range(measured):
        pull_rows(blocks, slopes[k], columns, w, lane + k, sums)
    return loss


@njit(cache=True, nogil=True)
def evaluate_lanes(plan, theta, blocks, out):  # type: ignore[no-untyped-def]
    """Write the expectations (points, R, 8 B) of rows at slots ``theta`` (points, S)."""
    first, second, starts, slot, factor, offset, observables, columns = plan
    readouts, lanes = observables.shape[1], len(theta) * observables.shape[1]
    cos, sin = np.empty((len(slot), lanes)), np.empty((len(slot), lanes))
    v = np.empty((len(observables), lanes))
    for lane in range(lanes):
        v[:, lane] = observables[:, lane % readouts]
    angles_of(theta, slot, factor, offset, readouts, cos, sin)
    rotate_forward(v, first, second, starts, cos, sin)
    for lane in range(lanes):
        expectations_of(blocks, v, lane, columns, out[lane // readouts, lane % readouts])


@njit(cache=True, nogil=True)
def pull_back(plan, theta, blocks, dz, gradient):  # type: ignore[no-untyped-def]
    """Write the gradient (S,) to slots ``theta`` (1, S) from that to the expectations (R, 8 B)."""
    first, second, starts, slot, factor, offset, observables, columns = plan
    readouts = observables.shape[1]
    cos, sin = np.empty((len(slot), readouts)), np.empty((len(slot), readouts))
    v, w, slopes = observables.copy(), np.zeros_like(observables), np.empty_like(cos)
    angles_of(theta, slot, factor, offset, readouts, cos, sin)
    rotate_forward(v, first, second, starts, cos, sin)
    sums = np.empty((len(columns), ROWS))
    for r in range(readouts):
        pull_rows(blocks, dz[r], columns, w, r, sums)
    rotate_back(v, w, first, second, starts, cos, sin, slopes)
    slot_gradient(slot, factor, slopes, 0, readouts, gradient)


@njit(cache=True, nogil=True)
def rows_of(data, client, batches, step, own):  # type: ignore[no-untyped-def]
    """One client's blocks and what `row_losses` takes; of a mini-batch copied into ``own``."""
    blocks, block_starts, labels, soft, entropy, shares, row_starts = data
    begin, end = row_starts[client], row_starts[client + 1]
    its_blocks = blocks[block_starts[client] : block_starts[client + 1]]
    its_labels, its_soft, its_entropy, its_shares = labels[begin:end], soft, entropy, shares
    distilled = soft.shape[0] > 0
    if distilled:
        its_soft, its_entropy, its_shares = soft[begin:end], entropy[begin:end], shares[begin:end]
    if batches.shape[2] == 0:
        return its_blocks, its_labels, its_soft, its_entropy, its_shares
    own_blocks, own_labels, own_soft, own_entropy, own_shares = own
    chosen = batches[client, step]
    copy_rows(its_blocks, chosen, own_blocks)
    for i in range(len(chosen)):
        own_labels[i] = its_labels[chosen[i]]
        if distilled:
            own_soft[i], own_entropy[i] = its_soft[chosen[i]], its_entropy[chosen[i]]
            own_shares[i] = its_shares[chosen[i]]
    return own


@njit(cache=True, nogil=True)
def scratch_for(data, columns, readouts, batch_rows):  # type: ignore[no-untyped-def]
    """Arrays for a mini-batch, and for expectations, their gradient and sums of any client."""
    block_starts, soft = data[1], data[3]
    most = (batch_rows + ROWS - 1) // ROWS
    blocks, labels = np.empty((most, columns, ROWS)), np.empty(batch_rows, dtype=np.int64)
    empty = np.empty((batch_rows, soft.shape[1])), np.empty(batch_rows), np.empty(batch_rows)
    own = blocks, labels, *empty
    for client in range(len(block_starts) - 1):
        most = max(most, block_starts[client + 1] - block_starts[client])
    z, dz = np.zeros((readouts, most * ROWS)), np.zeros((readouts, most * ROWS))
    return own, (z, dz, np.empty((columns, ROWS)))


@njit(cache=True, nogil=True)
def slot_gradient(slot, factor, slopes, lane, readouts, gradient):  # type: ignore[no-untyped-def]
    """Write the gradient to a client's slots from that to the angles of its lanes."""
    gradient[:] = 0.0
    for g in range(len(slot)):
        if slot[g] >= 0:
            for r in range(readouts):
                gradient[slot[g]] += factor[g] * slopes[g, lane + r]


@njit(cache=True, nogil=True)
def train_lanes(plan, theta, linear, data, batches, terms, steps, rates, losses):  # type: ignore[no-untyped-def]
    """Train clients by Adam; see `quantum.training.compiled` for the arguments.

    Return the steps (clients,) at which a client's numbers stopped being finite; -1: never.
    """
    first, second, starts, slot, factor, offset, observables, columns = plan
    weights, mix, tau, proximal = terms
    clients, size = theta.shape
    readouts, gates = observables.shape[1], len(slot)
    lanes, failed, anchor = clients * readouts, np.full(clients, -1), theta.copy()
    moment_1, moment_2 = np.zeros_like(theta), np.zeros_like(theta)
    cos, sin, slopes = np.empty((gates, lanes)), np.empty((gates, lanes)), np.empty((gates, lanes))
    v, w = np.empty((len(observables), lanes)), np.zeros((len(observables), lanes))
    own, scratch = scratch_for(data, len(columns), readouts, batches.shape[2])
    angles = size - (weights.shape[1] * (readouts + 1) if linear else 2 * readouts)
    gradient, d_heads = np.zeros(size), np.zeros((clients, size - angles))
    for step in range(np.max(steps)):
        angles_of(theta, slot, factor, offset, readouts, cos, sin)
        for lane in range(lanes):
            v[:, lane] = observables[:, lane % readouts]
        rotate_forward(v, first, second, starts, cos, sin)
        w[:] = 0.0
        for client in range(clients):
            if step >= steps[client] or failed[client] >= 0:
                continue
            rows = rows_of(data, client, batches, step, own)
            its_terms, lane = (weights[client], mix[client], tau[client]), client * readouts
            head, d_head = theta[client, angles:], d_heads[client]
            losses[client, step] = client_step(
                rows, its_terms, linear, head, columns, v, w, lane, scratch, d_head
            )
        rotate_back(v, w, first, second, starts, cos, sin, slopes)
        for client in range(clients):
            if step >= steps[client] or failed[client] >= 0:
                continue
            slot_gradient(slot, factor, slopes, client * readouts, readouts, gradient)
            gradient[angles:] = d_heads[client]
            moved, mu, rate = theta[client], proximal[client], rates[client, step]
            if mu > 0.0:
                losses[client, step] += pull_to(moved, anchor[client], mu, gradient)
            fine = adam(moved, gradient, moment_1[client], moment_2[client], step, rate)
            if not (fine and math.isfinite(losses[client, step])):
                failed[client] = step
    return failed
