"""Learning from a teacher: `distill` of a train spec (specs/train_distill.py).

    loss = (1 - w) * next-token loss + w * distillation loss              w: weight

kl                T^2 * KL(teacher || student) of the next token's distributions softmax(z / T), T the temperature
                  (Hinton et al., arXiv:1503.02531, section 2; T^2 keeps the gradients' size as T changes)
hidden            squared distance of the layers' outputs h, relative to the teacher's, the mean over the layers l:
                      |h_l - h'_l|^2 / |h'_l|^2               of each token
attention_output  the same of the attentions' outputs, relative to their mean over the row's counted tokens:
                      |a_l - a'_l|^2 / mean_j |a'_lj|^2       (LoLCATs, arXiv:2410.10254, equation 6, has no divisor)

Student and teacher each read the text on their own: in LoLCATs an attention is given its teacher's inputs, here it has
its student's. Hidden states are compared token by token, since a few tokens have states a thousand times as large as
the others' (Sun et al., arXiv:2402.17762). All are means over the counted targets, as the next-token loss is.

check.py          whether a teacher can teach this model: vocabulary, tokenizer, sizes, positions
teacher.py        the teacher at work: what it says of a pass, computed or from the cache
cache.py          its final hidden states on disk
lessons.py        what a pass is compared with, and the losses
head_loss.py      next-token loss and kl of a chunk of tokens at a time
"""
